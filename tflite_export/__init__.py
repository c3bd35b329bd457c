"""Integer `.tflite` files: conversion, inspection, verification, benchmark."""
