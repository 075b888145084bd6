//! `/api/v1/...`: what is asked for, and the answers.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wildmatch::WildMatch;

use super::{Figures, Shared, TEXT, in_time, unavailable};
use crate::core::Share;
use crate::sink::api::{ThreadSort, UnitSort, View, Wanted};

/// One answer is made from figures that are at most so old, so that many questions cost little more than
/// one.
const FRESH: Duration = Duration::from_secs(1);

const DEFAULT_LIMIT: usize = 100;

/// Rows at most.
const MAX_LIMIT: usize = 10_000;

/// Longest filter, in bytes.
const MAX_FILTER: usize = 256;

/// What is in the address behind the question mark.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked<S: Default> {
    #[serde(default)]
    sort: S,
    limit: Option<usize>,
    filter: Option<String>,
    state: Option<String>,
}

impl<S: Default + Copy> Asked<S> {
    fn wanted(&self) -> Result<Wanted<S>, String> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if limit > MAX_LIMIT {
            return Err(format!("limit is at most {MAX_LIMIT}, found {limit}"));
        }
        let filter = self.filter.as_deref().filter(|filter| !filter.is_empty());
        if filter.is_some_and(|filter| filter.len() > MAX_FILTER) {
            return Err(format!("filter has at most {MAX_FILTER} bytes"));
        }
        Ok(Wanted {
            sort: self.sort,
            limit,
            filter: filter.map(WildMatch::new),
        })
    }

    fn state(&self) -> Result<Option<Share>, String> {
        let Some(state) = self.state.as_deref() else {
            return Ok(None);
        };
        let known = Share::ALL.into_iter().find(|share| share.name() == state);
        known.map(Some).ok_or_else(|| {
            format!("state is running, runnable, blocked or unknown, found {state:?}")
        })
    }
}

pub(super) type Answer = Result<Response, Response>;

/// `GET /api/v1/units?sort=&limit=&filter=`
pub(super) async fn units<F: Figures>(
    State(shared): State<Arc<Shared<F>>>,
    asked: Result<Query<Asked<UnitSort>>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(asked) = asked.map_err(|error| wrong(&error.body_text()))?;
    if asked.state.is_some() {
        return Err(wrong("units have no state"));
    }
    let wanted = asked.wanted().map_err(|what| wrong(&what))?;
    Ok(json(&view(&shared).await?.units(&wanted)))
}

/// `GET /api/v1/threads?sort=&limit=&filter=&state=`
pub(super) async fn threads<F: Figures>(
    State(shared): State<Arc<Shared<F>>>,
    asked: Result<Query<Asked<ThreadSort>>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(asked) = asked.map_err(|error| wrong(&error.body_text()))?;
    let wanted = asked.wanted().map_err(|what| wrong(&what))?;
    let state = asked.state().map_err(|what| wrong(&what))?;
    Ok(json(&view(&shared).await?.threads(&wanted, state)))
}

/// `GET /api/v1/delays`
pub(super) async fn delays<F: Figures>(State(shared): State<Arc<Shared<F>>>) -> Answer {
    Ok(json(&view(&shared).await?.heat()))
}

/// The figures, new ones if those from before are too old.
async fn view<F: Figures>(shared: &Shared<F>) -> Result<Arc<View>, Response> {
    let answer = async {
        let mut kept = shared.view.lock().await;
        match &*kept {
            Some((at, view)) if at.elapsed() < FRESH => Ok(Arc::clone(view)),
            _ => {
                let view = Arc::new(shared.figures.view().await?);
                *kept = Some((Instant::now(), Arc::clone(&view)));
                Ok(view)
            }
        }
    };
    in_time(&shared.limits, answer)
        .await
        .map_err(|why| unavailable(&why))
}

pub(super) fn json(answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => {
            let headers = [
                (CONTENT_TYPE, "application/json"),
                (CACHE_CONTROL, "no-store"),
            ];
            (headers, body).into_response()
        }
        Err(error) => unavailable(&error.to_string()),
    }
}

fn wrong(what: &str) -> Response {
    let text = format!("{what}; docs/http.md has what can be asked for\n");
    (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, TEXT)], text).into_response()
}
