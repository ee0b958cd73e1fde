"""Valid data sets, what spoils them, and what a careful reader finds in them; see ``tests/fuzz_data.py``."""
