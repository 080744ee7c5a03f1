"""Tests of matbackprop.worked, whose door is mb.explain."""
