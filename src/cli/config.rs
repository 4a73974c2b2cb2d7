//! `config`: each setting, its value and where it came from, as this command reads them. The daemon
//! reads its own at its start, by the same rules. Exit 1 when it would not start with these.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::args::Config;
use super::screen::{Screen, Tone, clean};
use super::{Exit, Problem, Reading, document};
use crate::config::{EXAMPLE, Setting, Survey};

/// The widest key, and what separates it from its value.
const KEY_COLUMNS: usize = 24;

/// Where a setting comes from that nobody has set.
const DEFAULT: &str = "default";

/// `config`
pub(super) fn config(
    asked: &Config,
    reading: Reading,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    if asked.example {
        out.write_all(EXAMPLE.as_bytes())?;
        return Ok(Exit::Done);
    }
    let survey = Survey::of_this_process();
    match &asked.key {
        Some(key) => one(key, &survey, reading, out)?,
        None => match reading {
            Reading::Json => document(out, &answer(&survey))?,
            Reading::Person | Reading::Text => show(out, Screen::of_stdout(), &survey)?,
        },
    }
    Ok(if survey.problems.is_empty() { Exit::Done } else { Exit::Failed })
}

/// The value alone, for scripts; nothing where it has none.
fn one(key: &str, survey: &Survey, reading: Reading, out: &mut dyn Write) -> Result<(), Problem> {
    let setting = survey.get(key).ok_or_else(|| {
        let message = format!("there is no setting {key}; payram-updater config lists them");
        Problem::stopped(Exit::Usage, "UNKNOWN_SETTING", message)
    })?;
    match reading {
        Reading::Json => document(out, &of(setting))?,
        Reading::Person | Reading::Text => {
            writeln!(out, "{}", setting.value.as_deref().unwrap_or_default())?;
        }
    }
    Ok(())
}

fn answer(survey: &Survey) -> Value {
    json!({
        "valid": survey.problems.is_empty(),
        "settings": survey.settings.iter().map(of).collect::<Vec<_>>(),
        "problems": survey.problems,
        "warnings": survey.warnings,
    })
}

fn of(setting: &Setting) -> Value {
    let mut object = json!({"key": setting.key, "source": source(setting)});
    if let Some(value) = &setting.value {
        object["value"] = value.as_str().into();
    }
    if let Some(default) = &setting.default {
        object["default"] = default.as_str().into();
    }
    object["allowed"] = setting.allowed.into();
    object["about"] = setting.about.as_str().into();
    object
}

fn source(setting: &Setting) -> String {
    setting.origin.as_ref().map_or_else(|| DEFAULT.to_owned(), ToString::to_string)
}

fn show(out: &mut dyn Write, screen: Screen, survey: &Survey) -> io::Result<()> {
    for setting in &survey.settings {
        let value = setting.value.as_deref().map_or_else(|| "-".to_owned(), clean);
        let source = source(setting);
        let room = screen.width.saturating_sub(KEY_COLUMNS);
        let line = format!("{:<KEY_COLUMNS$}{value}", setting.key);
        match setting.origin {
            None => writeln!(out, "{}", screen.paint(Tone::Faint, &line))?,
            Some(_) if value.chars().count() + source.chars().count() + 4 <= room => {
                writeln!(out, "{line}  ({source})")?;
            }
            Some(_) => writeln!(out, "{line}\n{:KEY_COLUMNS$}({source})", "")?,
        }
    }
    writeln!(out, "\nWithout a place in parentheses it is the default; - is none.")?;
    for warning in &survey.warnings {
        writeln!(out, "{} {}", screen.paint(Tone::Unsure, "!"), screen.hang(2, warning))?;
    }
    for problem in &survey.problems {
        writeln!(out, "{} {}", screen.paint(Tone::Bad, "✘"), screen.hang(2, problem))?;
    }
    Ok(())
}
