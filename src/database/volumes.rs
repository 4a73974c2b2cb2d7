//! Volumes of the local driver that are another name for a directory of this host
//! (`--opt type=none --opt o=bind --opt device=PATH`). The engine mounts that directory at the
//! volume's own place as long as a container runs, and at no other time: whoever works on it while
//! its container is stopped needs the directory's own path.
//!
//! Called wherever a mount's place on this host is asked for. Reads only.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::engine::{ContainerSummary, Engine, EngineError, mounts};

/// The inspection of a container with such volumes' sources as the directories themselves.
///
/// # Errors
/// When the engine can't be asked.
pub async fn with_devices(engine: &dyn Engine, container: &Value) -> Result<Value, EngineError> {
    let mut resolved = container.clone();
    for mount in resolved["Mounts"].as_array_mut().into_iter().flatten() {
        if mount["Type"].as_str() != Some("volume") {
            continue;
        }
        let name = mount["Name"].as_str().unwrap_or_default().to_owned();
        if let Some(device) = device(engine, &name).await? {
            mount["Source"] = json!(device);
        }
    }
    Ok(resolved)
}

/// Which directories a container reaches by such volumes that it may write to.
pub(super) async fn devices_of(
    engine: &dyn Engine,
    container: &ContainerSummary,
) -> Result<Vec<PathBuf>, EngineError> {
    let mut devices = Vec::new();
    let volumes = container.mounts.iter().filter(|mount| mount.kind == "volume" && mount.writable);
    for name in volumes.filter_map(|mount| mount.name.as_deref()) {
        devices.extend(device(engine, name).await?);
    }
    Ok(devices)
}

async fn device(engine: &dyn Engine, volume: &str) -> Result<Option<PathBuf>, EngineError> {
    if volume.is_empty() {
        return Ok(None);
    }
    Ok(engine.inspect_volume(volume).await?.as_ref().and_then(mounts::device))
}
