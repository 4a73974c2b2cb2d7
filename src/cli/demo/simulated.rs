//! The make-believe engine: `payram-updater sandbox` as a child process. No Docker, no root.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use super::Fault;
use super::backstage::{Backstage, Place, Shop};
use super::paper::Paper;
use super::process::{READY_WITHIN, child};
use crate::sandbox::Ready;

/// The engine, from its start on.
#[derive(Default)]
pub(super) struct Simulated {
    engine: Option<Child>,
    data: Option<PathBuf>,
}

/// The releases that are played, by the names that the stand-in's have.
fn scenario() -> Value {
    json!({
        "running": "1.9.6",
        "payments": 1000,
        "tags": {
            "1.9.6": {},
            "1.9.7": {"migration": {"schema": true}},
            "1.9.8": {"bootMs": 500},
            "9.0.4": {"migration": {"schema": true, "fails": true}},
        },
    })
}

#[async_trait(?Send)]
impl Backstage for Simulated {
    fn introduction(&self) -> String {
        "The container engine is SIMULATED: no Docker, no root, no network. The daemon, the \
         journal, the commands and the files are real; ~ is a temporary directory, and all of \
         it is gone afterwards. It takes half a minute. The same on a real engine with a real \
         PostgreSQL, as root in a clone: payram-updater demo --engine docker"
            .to_owned()
    }

    fn temporary(&self) -> PathBuf {
        std::env::temp_dir()
    }

    fn socket(&self, place: &Place) -> PathBuf {
        place.at("sandbox.sock")
    }

    async fn open(&mut self, place: &Place, _paper: &Paper) -> Result<Shop, Fault> {
        let (file, listen) = (place.at("scenario.json"), self.socket(place));
        fs::write(&file, scenario().to_string())?;
        let program = std::env::current_exe()?;
        let mut engine = child(&program, &place.directory)
            .arg("sandbox")
            .args([OsStr::new("--state"), place.at("engine").as_os_str()])
            .args(["--listen", &format!("unix:{}", listen.display())])
            .args([OsStr::new("--scenario"), file.as_os_str()])
            .stdout(Stdio::piped())
            .spawn()?;
        let out = engine.stdout.take().ok_or_else(|| Fault::new("the engine has no output"))?;
        // From here on it is waited for when it is killed, also by an interrupted demo.
        self.engine = Some(engine);
        let line = timeout(READY_WITHIN, BufReader::new(out).lines().next_line()).await;
        let line = line.map_err(|_| Fault::new("the engine was not ready in time"))??;
        let line = line.ok_or_else(|| Fault::new("the engine ended before it was ready"))?;
        let ready: Ready = serde_json::from_str(&line)
            .map_err(|error| Fault::new(format!("the engine said {line:?}: {error}")))?;
        self.data = Some(ready.data);
        Ok(Shop {
            container: "payram".to_owned(),
            label: None,
            repo: ready.repo,
            policy: ready.policy,
            manifest: ready.manifest,
            core: ready.core,
            acknowledged: ready.acknowledged,
            start_timeout_seconds: 10,
        })
    }

    async fn payments(&self, _shop: &Shop) -> Result<BTreeSet<String>, Fault> {
        let data = self.data.as_ref().ok_or_else(|| Fault::new("the shop is not open"))?;
        let rows = fs::read_to_string(data.join("payments.jsonl"))?;
        let rows = rows.lines().filter_map(|row| serde_json::from_str::<Value>(row).ok());
        Ok(rows.filter_map(|row| row["id"].as_str().map(str::to_owned)).collect())
    }

    async fn clear(&mut self, _place: &Place) -> Result<(), Fault> {
        if let Some(mut engine) = self.engine.take() {
            engine.kill().await?;
        }
        Ok(())
    }
}
