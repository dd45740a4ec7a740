"""One function a figure: result -> Axes, titled with its conclusion."""
