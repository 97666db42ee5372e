"""Say how captions name the ten digits."""

from __future__ import annotations

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPT = "a photo of the digit {}."
TEMPLATES = ("a photo of the digit {}.", "the digit {}.", "a handwritten {}.", "the number {} written by hand.")
