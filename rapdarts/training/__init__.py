"""What training needs whatever is trained: data, augmentation, schedules, and the run folder that can be resumed anywhere."""
