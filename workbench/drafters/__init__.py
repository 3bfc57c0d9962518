"""Drafters: one file per method; each proposes draft trees and learns from what the target said."""
