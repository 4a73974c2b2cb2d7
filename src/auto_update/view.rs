//! What auto-update does and why, as `status` and `inspect` show it: read from the configuration
//! and the journal whenever it is asked.

use serde::Serialize;

use super::decide::next_look;
use super::stored::Stored;
use super::{AUTO_UPDATE, FAILED, STARTED, SUCCEEDED};
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::journal::{HistoryEvent, HistoryFilter, JournalError, Reader};

/// `autoUpdate` of the status and of `inspect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoUpdateView {
    /// Whether this host updates by itself.
    pub enabled: bool,
    /// Hours between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_hours: Option<u32>,
    /// `AUTO_UPDATE_WINDOW`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// RFC 3339: when was looked last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_look: Option<String>,
    /// RFC 3339: the earliest next look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_look: Option<String>,
    /// `started`, `succeeded` (nothing to do), `failed` or `waiting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// Why: a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why its configuration is of no use; it is off then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl AutoUpdateView {
    /// What there is to say.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub fn read(settings: &Settings, reader: Option<&Reader>) -> Result<Self, JournalError> {
        let stored = match Stored::read(&settings.state_dir) {
            Ok(stored) => stored.unwrap_or_default(),
            Err(error) => return Ok(Self { error: Some(error.to_string()), ..Self::default() }),
        };
        if !stored.enabled {
            return Ok(Self::default());
        }
        let (newest, last) = match reader {
            Some(reader) => (newest(reader, None)?, last_look(reader)?),
            None => (None, None),
        };
        Ok(Self {
            enabled: true,
            interval_hours: Some(stored.interval_hours),
            window: Some(settings.auto_update_window.to_string()),
            last_look: last.map(Timestamp::rfc3339),
            next_look: last.map(|last| next_look(last, stored.interval_hours).rfc3339()),
            decision: newest.as_ref().map(|event| event.status.clone()),
            message: newest.map(|event| event.message),
            error: None,
        })
    }

    /// For a person.
    pub fn sentence(&self) -> String {
        match (self.enabled, &self.error) {
            (_, Some(error)) => format!("off: {error}"),
            (false, None) => "off".to_owned(),
            (true, None) => {
                let hours = self.interval_hours.unwrap_or_default();
                let why = self.message.as_deref().unwrap_or("has not looked yet");
                format!("on, every {hours} h: {why}")
            }
        }
    }
}

/// When was looked last.
pub(super) fn last_look(reader: &Reader) -> Result<Option<Timestamp>, JournalError> {
    let mut last = None;
    for status in [STARTED, SUCCEEDED, FAILED] {
        let event = newest(reader, Some(status))?;
        last = last.max(event.and_then(|event| Timestamp::parse(&event.timestamp)));
    }
    Ok(last)
}

/// The newest event of this status.
pub(super) fn newest(
    reader: &Reader,
    status: Option<&str>,
) -> Result<Option<HistoryEvent>, JournalError> {
    let filter = HistoryFilter {
        kind: Some(AUTO_UPDATE.to_owned()),
        status: status.map(str::to_owned),
        limit: 1,
        ..HistoryFilter::default()
    };
    Ok(reader.history(&filter)?.into_iter().next())
}
