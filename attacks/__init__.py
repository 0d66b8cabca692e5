"""ctask attacks itself: `python -m attacks NAME --seed S --count N`, see README.md."""
