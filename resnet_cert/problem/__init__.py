"""What the mathematics sees: data, loss, features, point; and whether they fit."""
