//! `restart`: restarts the daemon's service and shows how it is. An upgrade that is under way goes
//! on where it was.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use super::{Exit, Problem, Reading, document};

/// As the installer and the package name it.
const UNIT: &str = "payram-updater.service";

/// Made by systemd where it is the host's init (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// What is asked of the unit.
const PROPERTIES: &str = "LoadState,ActiveState,SubState,MainPID,StatusText,ActiveEnterTimestamp";

/// `restart`
pub(super) fn restart(reading: Reading, out: &mut dyn Write) -> Result<Exit, Problem> {
    if !Path::new(BOOTED).is_dir() {
        return Err(failed(
            "NO_SYSTEMD",
            "systemd does not run here, so there is no service to restart; end `payram-updater serve` and start it again".into(),
        ));
    }
    let before = Unit::look()?;
    if before.of("LoadState") == "not-found" {
        let message = format!("there is no {UNIT} here; the installer or the package brings it");
        return Err(failed("NO_SERVICE", message));
    }
    let done = systemctl(&["--no-ask-password", "restart", UNIT])?;
    let after = Unit::look()?;
    let is_active = done.status.success() && after.of("ActiveState") == "active";
    match reading {
        Reading::Json => document(out, &after.answer(is_active))?,
        Reading::Person | Reading::Text => after.show(out)?,
    }
    if is_active {
        return Ok(Exit::Done);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let said = said.lines().next().unwrap_or("it does not run").trim();
    let hint = format!("see journalctl -u {UNIT} -n 50, and payram-updater config");
    Err(failed("RESTART_FAILED", format!("restart {UNIT}: {said}; {hint}")))
}

fn failed(code: &'static str, message: String) -> Problem {
    Problem::stopped(Exit::Failed, code, message)
}

fn systemctl(arguments: &[&str]) -> Result<Output, Problem> {
    let mut command = Command::new("systemctl");
    command.args(arguments).stdin(Stdio::null());
    command.output().map_err(|error| failed("NO_SYSTEMD", format!("run systemctl: {error}")))
}

/// What systemd says of the unit, `KEY=value` lines.
struct Unit(String);

impl Unit {
    fn look() -> Result<Self, Problem> {
        let output = systemctl(&["show", "--property", PROPERTIES, UNIT])?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed("NO_SYSTEMD", format!("ask systemd about {UNIT}: {}", said.trim())));
        }
        Ok(Self(String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    fn of(&self, property: &str) -> &str {
        let mut pairs = self.0.lines().filter_map(|line| line.split_once('='));
        pairs.find_map(|(key, value)| (key == property).then_some(value)).unwrap_or_default()
    }

    fn answer(&self, success: bool) -> serde_json::Value {
        json!({
            "success": success,
            "unit": UNIT,
            "activeState": self.of("ActiveState"),
            "subState": self.of("SubState"),
            "mainPid": self.of("MainPID").parse::<u32>().unwrap_or_default(),
            "status": self.of("StatusText"),
            "since": self.of("ActiveEnterTimestamp"),
        })
    }

    fn show(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "{UNIT}: {} ({})", self.of("ActiveState"), self.of("SubState"))?;
        let rows = [
            ("Since", self.of("ActiveEnterTimestamp")),
            ("Process", self.of("MainPID")),
            ("Status", self.of("StatusText")),
        ];
        for (label, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
            writeln!(out, "  {label:<9}{value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_says_is_shown_and_answered() {
        let unit = Unit("ActiveState=active\nSubState=running\nMainPID=7\nStatusText=a=b\n".into());
        assert_eq!(unit.of("StatusText"), "a=b");
        assert_eq!(unit.answer(true)["mainPid"], 7);
        let mut out = Vec::new();
        unit.show(&mut out).expect("written");
        let text = String::from_utf8(out).expect("text");
        assert!(text.starts_with("payram-updater.service: active (running)\n"), "{text}");
    }
}
