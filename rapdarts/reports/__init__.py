"""Tables and plots of what runs found."""
