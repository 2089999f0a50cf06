"""One self-contained page with pictures of what a pipeline made. Knows neither torch nor how anything is trained."""
