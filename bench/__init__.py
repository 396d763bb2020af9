"""The load-test harness: numbers with a stated target and a baseline."""
