"""The embedded models: judges, tokenizer, image tower, classifiers, and the zoo that keeps them."""
