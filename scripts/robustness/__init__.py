"""Fault injection: interrupted runs, damaged files, hostile input, mistaken options."""
