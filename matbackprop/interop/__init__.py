"""What other libraries expect of a model: SciPy's optimisers (`matbackprop.interop.scipy`), scikit-learn's estimators.

Nothing is imported here: each module imports what it needs when it is asked for.
"""
