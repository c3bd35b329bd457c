"""Files and names to Keras models, without running any code in them."""
