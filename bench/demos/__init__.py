"""Demonstrations: a cluster on this machine, real clients, something unkind, and the checker's verdict.

What is here runs where Ringlog is installed: nothing of it needs the packages of those who develop it.
"""
