//! The application's database: where it is, how large, its dump, what it held.
