//! An engine for unit tests: a list of containers, and one container whose supervisord is
//! simulated behind `supervisorctl`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::Value;

use crate::engine::{
    Change, ContainerSummary, Engine, EngineError, EngineEvent, EngineFacts, Exec, ExecRequest,
    Frame, Process, PullProgress,
};

/// What answers `supervisorctl`: from the arguments to the exit code and what is printed.
pub(super) type Supervisor = dyn FnMut(&[String]) -> Answer + Send;

/// How a command ends.
pub(super) enum Answer {
    /// With this code, after printing this.
    Ended(i64, String),
    /// Not at all.
    Hangs,
    /// The engine refuses to begin it, with this message.
    Refused(String),
}

/// See the module.
#[derive(Default)]
pub(super) struct FakeEngine {
    pub containers: Vec<ContainerSummary>,
    /// Raw inspections by id.
    pub inspections: HashMap<String, Value>,
    pub supervisor: Option<Mutex<Box<Supervisor>>>,
    pub exit_codes: Mutex<HashMap<String, i64>>,
}

impl FakeEngine {
    /// An engine whose one container answers `supervisorctl` like this.
    pub fn supervised(answer: impl FnMut(&[String]) -> Answer + Send + 'static) -> Self {
        Self { supervisor: Some(Mutex::new(Box::new(answer))), ..Self::default() }
    }
}

#[async_trait]
impl Engine for FakeEngine {
    fn endpoint(&self) -> String {
        "fake".into()
    }

    async fn containers(&self, label: Option<&str>) -> Result<Vec<ContainerSummary>, EngineError> {
        assert_eq!(label, None);
        Ok(self.containers.clone())
    }

    async fn exec(&self, _id: &str, request: ExecRequest) -> Result<Exec, EngineError> {
        let (program, arguments) = request.argv.split_first().expect("a command");
        assert_eq!(program, "supervisorctl");
        let supervisor = self.supervisor.as_ref().expect("a supervised container");
        let answer = (supervisor.lock().expect("not poisoned"))(arguments);
        let mut exit_codes = self.exit_codes.lock().expect("not poisoned");
        let id = format!("exec-{}", exit_codes.len());
        let output: BoxStream<'static, _> = match answer {
            Answer::Ended(code, text) => {
                exit_codes.insert(id.clone(), code);
                let (head, tail) = text.split_at(text.len() / 2);
                let frames = [head.to_owned(), tail.to_owned()].map(Bytes::from).map(Frame::Stdout);
                futures_util::stream::iter(frames.map(Ok)).boxed()
            }
            Answer::Hangs => futures_util::stream::pending().boxed(),
            Answer::Refused(message) => {
                return Err(EngineError::Refused { doing: "exec".into(), status: 400, message });
            }
        };
        Ok(Exec { id, output, stdin: None })
    }

    async fn exec_exit_code(&self, exec_id: &str) -> Result<Option<i64>, EngineError> {
        Ok(self.exit_codes.lock().expect("not poisoned").get(exec_id).copied())
    }

    async fn facts(&self) -> Result<EngineFacts, EngineError> {
        unreachable!("not asked here")
    }

    async fn inspect_container(&self, id: &str) -> Result<Option<Value>, EngineError> {
        Ok(self.inspections.get(id).cloned())
    }

    async fn inspect_image(&self, _: &str) -> Result<Option<Value>, EngineError> {
        unreachable!("not asked here")
    }

    async fn inspect_network(&self, _: &str) -> Result<Option<Value>, EngineError> {
        unreachable!("not asked here")
    }

    async fn registry_image(
        &self,
        _: &str,
        _: &str,
    ) -> Result<crate::engine::RegistryImage, crate::engine::RegistryNo> {
        unreachable!("not asked here")
    }

    async fn registry_digest(&self, _: &str, _: &str) -> Result<String, String> {
        Err("there is no registry".to_owned())
    }

    async fn create_container(&self, _: &str, _: &Value) -> Result<String, EngineError> {
        unreachable!("not asked here")
    }

    async fn connect_network(&self, _: &str, _: &str, _: &Value) -> Result<(), EngineError> {
        unreachable!("not asked here")
    }

    async fn start(&self, _: &str) -> Result<(), EngineError> {
        unreachable!("not asked here")
    }

    async fn stop(&self, _: &str, _: Option<Duration>) -> Result<(), EngineError> {
        unreachable!("not asked here")
    }

    async fn rename(&self, _: &str, _: &str) -> Result<(), EngineError> {
        unreachable!("not asked here")
    }

    async fn set_restart_policy(&self, _: &str, _: &Value) -> Result<(), EngineError> {
        unreachable!("not asked here")
    }

    async fn remove(&self, _: &str) -> Result<(), EngineError> {
        unreachable!("not asked here")
    }

    async fn pull(
        &self,
        _: &str,
        _: &str,
        _: &mut (dyn FnMut(PullProgress) + Send),
    ) -> Result<(), EngineError> {
        unreachable!("not asked here")
    }

    async fn logs(&self, _: &str, _: usize) -> Result<String, EngineError> {
        unreachable!("not asked here")
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Value, EngineError>>, EngineError> {
        unreachable!("not asked here")
    }

    async fn inspect_volume(&self, _: &str) -> Result<Option<Value>, EngineError> {
        Ok(None)
    }

    async fn processes(&self, _: &str) -> Result<Vec<Process>, EngineError> {
        Ok(Vec::new())
    }

    async fn changes(&self, _: &str) -> Result<Vec<Change>, EngineError> {
        Ok(Vec::new())
    }

    async fn archive(
        &self,
        _: &str,
        _: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        Ok(futures_util::stream::empty().boxed())
    }

    async fn kill(&self, _: &str) -> Result<(), EngineError> {
        Ok(())
    }

    async fn events_between(
        &self,
        _: &str,
        _: i64,
        _: i64,
    ) -> Result<Vec<EngineEvent>, EngineError> {
        Ok(Vec::new())
    }
}
