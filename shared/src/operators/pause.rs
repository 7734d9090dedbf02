//! Pausing what a service does all the time: announcing, or counting. The pause is a row of the database, seen by every
//! instance within about a second, and ends by the database's clock or when somebody resumes.
//!
//! The table is the same in both databases, and so is what is asked of it: see [`crate::pause_table`].

mod table;

use std::time::Duration;

use actix_web::{HttpRequest, http::StatusCode, web::Payload};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    contract::text,
    runtime::config::Setting,
    web::{
        http::Operation,
        json::{self, Object},
        problem::{Problem, Violation},
    },
};

/// No pause with an end is longer.
const LONGEST: Duration = Duration::from_hours(24 * 31);

/// Whether there is a pause, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pause {
    pub paused: bool,
    #[schema(required)]
    pub reason: Option<String>,
    #[schema(required)]
    pub by: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub since: Option<OffsetDateTime>,
    /// When it ends by itself; null where somebody has to resume.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub until: Option<OffsetDateTime>,
}

/// A pause that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub reason: String,
    pub lasts: Option<Duration>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// How long at most, like `30m`; without it somebody has to resume.
    #[serde(default, rename = "for")]
    #[schema(example = "30m")]
    lasts: Option<String>,
}

impl Wanted {
    /// # Errors
    /// As [`json::body`]; 422 for a reason that cannot be kept, or a time that is none.
    pub async fn of(request: &HttpRequest, body: Payload) -> Result<Self, Problem> {
        let Object(PauseRequest { reason, lasts }) = json::body::<Object<PauseRequest>>(request, body).await?;
        let mut wrong = Vec::new();
        let mut kept = |pointer: &str, rule: String| wrong.push(Violation::new(pointer, format!("This {rule}.")));
        let reason = text::parse_reason(&reason).map_err(|rule| kept("/reason", rule)).unwrap_or_default();
        let lasts = lasts.map(|lasts| parse_time(&lasts).map_err(|rule| kept("/for", rule)).unwrap_or_default());
        if wrong.is_empty() { Ok(Self { reason, lasts }) } else { Err(Problem::unprocessable(wrong)) }
    }
}

/// How long a pause lasts.
///
/// # Errors
/// What it must be instead.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let lasts = Duration::parse(text)?;
    let fits = (Duration::from_secs(1)..=LONGEST).contains(&lasts);
    if fits { Ok(lasts) } else { Err("must be from 1s to 31d".into()) }
}

/// The document's entries: to look, to pause and to resume. `what` rests.
#[must_use]
pub fn documented(operations: [Operation; 3], what: &str) -> [Operation; 3] {
    let [look, pause, resume] = operations;
    let paused = || {
        json!({ "paused": true, "reason": "the topic is moved", "by": "operator-7",
            "since": "2026-11-22T17:04:05.123456Z", "until": "2026-11-22T17:34:05.123456Z" })
    };
    let none = json!({ "paused": false, "reason": null, "by": null, "since": null, "until": null });
    [
        look.named("findPause", &format!("Whether {what} is paused"), "").answers::<Pause>(
            StatusCode::OK,
            "The pause, or that there is none.",
            &[],
            paused(),
        ),
        pause
            .named("pause", &format!("Pause {what} on all instances"), "Again: with another reason, or another end.")
            .body::<PauseRequest>(json!({ "reason": "the topic is moved", "for": "30m" }))
            .answers::<Pause>(
                StatusCode::OK,
                "The pause; every instance sees it within about a second.",
                &[],
                paused(),
            ),
        resume.named("resume", &format!("Resume {what} on all instances"), "").answers::<Pause>(
            StatusCode::OK,
            "There is no pause any more.",
            &[],
            none,
        ),
    ]
}
