//! The settings of contract section 9: read, validated, typed.
