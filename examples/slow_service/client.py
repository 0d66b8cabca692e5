"""Makes the trouble happen: python client.py slow|stuck|leaks [PORT]"""

import sys
import threading
import time
import urllib.request

port = int(sys.argv[2]) if len(sys.argv) > 2 else 8000


def get(path):
    began = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=3600) as response:
        body = response.read().decode()
    print(f"{path}: {body}, after {time.monotonic() - began:.3f} s", flush=True)


def after_one(pause, first, *others):
    """Ask for others a moment (seconds) after the first one, which takes longer."""
    threads = [threading.Thread(target=get, args=(path,), daemon=True) for path in (first, *others)]
    for thread in threads:
        thread.start()
        time.sleep(pause if thread is threads[0] else 0)
    for thread in threads:
        thread.join()


def slow():
    """A path that is quick, while somebody asks for another."""
    get("/count")
    after_one(0.05, "/rank", "/count", "/count")


def stuck():
    """Five customers, of whom the first one's payment is never answered."""
    after_one(1, "/order?customer=slow", *(f"/order?customer={i}" for i in range(4)))


def leaks():
    """Orders, of which none is confirmed."""
    for i in range(50):
        get(f"/order?customer={i}")


{"slow": slow, "stuck": stuck, "leaks": leaks}[sys.argv[1]]()
