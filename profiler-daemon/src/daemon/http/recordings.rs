//! `/api/v1/recordings`: what the flight recorder keeps becomes a file, and files are fetched.

use std::fs::File;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, ORIGIN,
    RETRY_AFTER,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;

use super::api::{Answer, json};
use super::{Figures, Shared, TEXT, unavailable};
use crate::daemon::flight::{NotWritten, Written};

/// Bytes of a file that are read at a time.
const BLOCK: usize = 64 << 10;

#[derive(Serialize)]
struct Files {
    recordings: Vec<Written>,
}

/// `POST /api/v1/recordings`
pub(super) async fn write<F: Figures>(
    State(shared): State<Arc<Shared<F>>>,
    headers: HeaderMap,
) -> Answer {
    let recorder = shared.figures.flight_recorder().ok_or_else(none)?;
    if !is_from_here(&headers) {
        let why = "a page of another site can't have recordings written";
        return Err(told(StatusCode::FORBIDDEN, why));
    }
    match recorder.write().await {
        Ok(written) => {
            let location = format!("/api/v1/recordings/{}", written.name);
            Ok((StatusCode::CREATED, [(LOCATION, location)], json(&written)).into_response())
        }
        Err(error @ NotWritten::TooSoon(left)) => {
            let seconds = (left.as_secs() + 1).to_string();
            let told = told(StatusCode::TOO_MANY_REQUESTS, &error.to_string());
            Err(([(RETRY_AFTER, seconds)], told).into_response())
        }
        Err(error @ NotWritten::Failed(_)) => {
            Err(told(StatusCode::INSUFFICIENT_STORAGE, &error.to_string()))
        }
    }
}

/// `GET /api/v1/recordings`
pub(super) async fn list<F: Figures>(State(shared): State<Arc<Shared<F>>>) -> Answer {
    let files = shared.figures.flight_recorder().ok_or_else(none)?.files();
    let recordings = files.map_err(|error| unavailable(&error.to_string()))?;
    Ok(json(&Files { recordings }))
}

/// `GET /api/v1/recordings/NAME`
pub(super) async fn fetch<F: Figures>(
    State(shared): State<Arc<Shared<F>>>,
    Path(name): Path<String>,
) -> Answer {
    let opened = shared
        .figures
        .flight_recorder()
        .ok_or_else(none)?
        .open(&name);
    let Some((file, bytes)) = opened.map_err(|error| unavailable(&error.to_string()))? else {
        let why = "there is no recording of that name: /api/v1/recordings lists them";
        return Err(told(StatusCode::NOT_FOUND, why));
    };
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_LENGTH, bytes.to_string()),
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
    ];
    let body = Body::new(FileBody { file, left: bytes });
    Ok((headers, body).into_response())
}

/// There is no flight recorder.
fn none() -> Response {
    let why = "there is no flight recorder: set flight_recorder.last in the configuration, such as to \"30s\"";
    told(StatusCode::NOT_FOUND, why)
}

/// Whether no browser says that it asks for a page of another site.
fn is_from_here(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let authority = origin.to_str().ok().and_then(|its| its.split_once("://"));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    matches!((authority, host), (Some((_, ours)), Some(host)) if ours == host)
}

fn told(status: StatusCode, why: &str) -> Response {
    let headers = [(CONTENT_TYPE, TEXT), (CACHE_CONTROL, "no-store")];
    (status, headers, format!("{why}\n")).into_response()
}

/// A file, a block at a time: it lies on a disk next to this, so reading it makes nobody wait for long.
struct FileBody {
    file: File,
    left: u64,
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let wanted = usize::try_from(self.left).unwrap_or(BLOCK).min(BLOCK);
        let mut block = vec![0; wanted];
        let read = self.file.read(&mut block).and_then(|count| match count {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        });
        Poll::Ready(Some(read.map(|count| {
            block.truncate(count);
            self.left -= count as u64;
            Frame::data(Bytes::from(block))
        })))
    }
}
