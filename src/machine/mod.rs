pub mod facts;
pub mod failure;
