/* A circular doubly linked list whose nodes are embedded in what they link.

   It owns nothing.  The layout (next, prev) is that of CPython's struct llist_node, because from 3.14 on
   a task's node hangs in CPython's own list. */

#ifndef CTASK_LIST_H
#define CTASK_LIST_H

#include <stddef.h>

struct list_node {
    struct list_node *next; // NULL while not linked
    struct list_node *prev;
};

#define list_entry(node, type, member) ((type *)((char *)(node) - offsetof(type, member)))

static inline void
list_init(struct list_node *head)
{
    head->next = head->prev = head;
}

static inline int
list_is_linked(const struct list_node *node)
{
    return node->next != NULL;
}

static inline void
list_append(struct list_node *head, struct list_node *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void
list_remove(struct list_node *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = NULL;
}

#endif
