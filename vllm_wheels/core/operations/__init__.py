"""What a person does with the whole: rebuild, clean, set up, deliver, follow releases."""
