"""A leaderboard as one static web page."""
