"""Tests of tflite_export.tflm."""
