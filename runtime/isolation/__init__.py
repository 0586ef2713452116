"""Plugins in processes of their own: what they may, how they are confined, and how the daemon talks to them."""
