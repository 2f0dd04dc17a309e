"""Dense registration: cost volumes and displacement fields."""
