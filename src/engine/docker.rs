//! The Docker implementation of [`super::Engine`].
