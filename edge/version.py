"""The version of this program; the build and `ringlog --version` read it here."""

VERSION = "0.1.0"
