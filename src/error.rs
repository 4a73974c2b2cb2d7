//! What an effect met that kept it from its end, as every module below the driver says it.
//!
//! `app` and `database` return [`Trouble`], so that "the engine did not answer in time" stays
//! distinguishable from "it can't be done": the first is looked at again (I4), the second turns
//! the upgrade round.

use crate::engine::EngineError;
use crate::machine::failure::{Failure, FailureCode};

/// An effect that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It can't be done.
    #[error("{0}")]
    Failed(Failure),
    /// It may have been done.
    #[error("{0}")]
    Unknown(Failure),
}

impl Trouble {
    /// A failure with this code and sentence.
    pub fn failed(code: FailureCode, message: impl Into<String>) -> Self {
        Trouble::Failed(Failure::new(code, message))
    }

    /// What it is about, certain or not.
    pub fn into_failure(self) -> Failure {
        match self {
            Trouble::Failed(failure) | Trouble::Unknown(failure) => failure,
        }
    }
}

/// An effect that can't be done, with this code and sentence.
///
/// # Errors
/// Always.
pub fn fail<T>(code: FailureCode, message: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::failed(code, message))
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failed(failure)
    }
}

impl From<&EngineError> for Failure {
    fn from(error: &EngineError) -> Self {
        let code = match error {
            EngineError::Unreachable { .. } => FailureCode::DockerDaemonDown,
            EngineError::Unknown { .. }
            | EngineError::Refused { .. }
            | EngineError::Protocol { .. } => FailureCode::DockerError,
        };
        Failure::new(code, error.to_string())
    }
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        let failure = Failure::from(&error);
        match error {
            EngineError::Unreachable { .. } | EngineError::Unknown { .. } => {
                Trouble::Unknown(failure)
            }
            EngineError::Refused { .. } | EngineError::Protocol { .. } => Trouble::Failed(failure),
        }
    }
}
