//! The public part of the history over HTTP, read-only and for anybody: `checkpoint` and `tile/...` as C2SP tlog-tiles has them.
//!
//! The HTTPS listener has it below `/history`.

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::history::tiles::Folder;
use crate::history::tree::WIDTH;

/// The routes `GET /checkpoint` and `GET /tile/...` over the tiles of a folder. Nothing else in the folder can be reached.
pub fn router(folder: Folder) -> Router {
    let tiles = folder.clone();
    let checkpoint = move || {
        let folder = folder.clone();
        async move {
            match tokio::task::spawn_blocking(move || folder.checkpoint()).await {
                Ok(Ok(Some(note))) => {
                    ([(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-cache")], note).into_response()
                }
                Ok(Ok(None)) => StatusCode::NOT_FOUND.into_response(),
                Ok(Err(cause)) => failed(&cause),
                Err(cause) => failed(&cause.to_string()),
            }
        }
    };
    let tile = move |Path(path): Path<String>| {
        let folder = tiles.clone();
        async move { answer(&folder, &path).await }
    };
    Router::new().route("/checkpoint", get(checkpoint)).route("/tile/{*path}", get(tile))
}

async fn answer(folder: &Folder, path: &str) -> Response {
    let Some((kind, number, width)) = parse(path) else { return StatusCode::NOT_FOUND.into_response() };
    match tokio::fs::read(folder.path(kind, number, width)).await {
        // A tile never changes: a wider one has another name.
        Ok(bytes) => {
            let headers = [(CONTENT_TYPE, "application/octet-stream"), (CACHE_CONTROL, "public, max-age=604800, immutable")];
            (headers, bytes).into_response()
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => StatusCode::NOT_FOUND.into_response(),
        Err(e) => failed(&e.to_string()),
    }
}

fn failed(cause: &str) -> Response {
    tracing::error!(cause, "a part of the history cannot be read");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// Parses `<level>/<number>[.p/<width>]`. Only the canonical form is accepted, so no other text becomes a path.
fn parse(path: &str) -> Option<(&str, u64, u64)> {
    let (kind, rest) = path.split_once('/')?;
    let level = kind.parse::<u8>().is_ok_and(|level| level < 64 && level.to_string() == kind);
    if !level && kind != "entries" {
        return None;
    }
    let (number, width) = match rest.split_once(".p/") {
        None => (rest, WIDTH),
        Some((number, text)) => {
            let width = text.parse::<u64>().ok().filter(|width| (1..WIDTH).contains(width) && width.to_string() == text)?;
            (number, width)
        }
    };
    let mut value = 0u64;
    let mut parts = number.split('/').peekable();
    let mut first = true;
    while let Some(part) = parts.next() {
        let digits = if parts.peek().is_some() { part.strip_prefix('x')? } else { part };
        if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // Only a number below 1,000 may begin with `000`.
        if first && parts.peek().is_some() && digits == "000" {
            return None;
        }
        first = false;
        value = value.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    Some((kind, value, width))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn only_the_paths_of_the_standard_are_paths() {
        assert_eq!(parse("0/000"), Some(("0", 0, 256)));
        assert_eq!(parse("0/x001/x234/067"), Some(("0", 1_234_067, 256)));
        assert_eq!(parse("entries/273.p/112"), Some(("entries", 273, 112)));
        for bad in [
            "",
            "0",
            "0/",
            "0/0",
            "0/0000",
            "00/000",
            "64/000",
            "-1/000",
            "x/000",
            "segments/000",
            "0/x000/001",
            "0/001/001",
            "0/x001/x002",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/07",
            "0/000.p/",
            "0/../checkpoint",
            "../vkey",
            "entries/..%2f",
            "0/é00",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn t126_the_checkpoint_and_tiles_are_served_and_nothing_else_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        std::fs::create_dir_all(dir.path().join("tile/0")).unwrap();
        std::fs::create_dir_all(dir.path().join("segments")).unwrap();
        std::fs::write(dir.path().join("tile/0/000"), b"hashes").unwrap();
        std::fs::write(dir.path().join("segments/000"), b"alice").unwrap();
        let get = |path: &'static str| {
            let router = Router::new().nest("/history", router(folder.clone()));
            async move {
                let answer = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
                let (status, kind) = (answer.status(), answer.headers().get(CONTENT_TYPE).cloned());
                (status, kind, to_bytes(answer.into_body(), 1 << 20).await.unwrap())
            }
        };
        assert_eq!(get("/history/checkpoint").await.0, StatusCode::NOT_FOUND);
        folder.publish("note\n").unwrap();
        let (status, kind, body) = get("/history/checkpoint").await;
        assert_eq!(
            (status, kind.unwrap(), &*body),
            (StatusCode::OK, "text/plain; charset=utf-8".parse().unwrap(), &b"note\n"[..])
        );
        let (status, kind, body) = get("/history/tile/0/000").await;
        assert_eq!(
            (status, kind.unwrap(), &*body),
            (StatusCode::OK, "application/octet-stream".parse().unwrap(), &b"hashes"[..])
        );
        for path in
            ["/history/tile/0/001", "/history/segments/000", "/history/tile/../segments/000", "/history/tile/..%2fsegments/000"]
        {
            let (status, _, body) = get(path).await;
            assert!(status == StatusCode::NOT_FOUND && body.is_empty(), "{path}");
        }
    }
}
