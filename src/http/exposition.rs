//! The bodies of `/metrics`: rendered once per published sample and format, whoever asks and however often.

use super::State;
use crate::metrics::Format;
use crate::sample::Exposed;
use axum::body::Bytes;
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OnceCell, watch};
use tokio::task::{JoinError, spawn_blocking};

type Render = fn(&Exposed, Format) -> String;

/// Bodies of the newest sample that has been asked for.
pub(super) struct Exposition {
    published: watch::Receiver<Arc<Exposed>>,
    render: Render,
    newest: Mutex<Arc<Bodies>>,
}

struct Bodies {
    exposed: Arc<Exposed>,
    open_metrics: Body,
    classic: Body,
}

#[derive(Default)]
struct Body {
    plain: OnceCell<Bytes>,
    gzip: OnceCell<Bytes>,
}

impl Exposition {
    pub(super) fn new(state: &State) -> Self {
        let published = state.exposed.clone();
        let newest = Mutex::new(Arc::new(Bodies::of(Arc::clone(&published.borrow()))));
        Self { published, render: state.render, newest }
    }

    /// The body for the newest published sample. The first to ask has it rendered; others that ask meanwhile
    /// wait for that one.
    pub(super) async fn body(&self, format: Format, gzip: bool) -> Result<Bytes, JoinError> {
        let bodies = self.bodies();
        let body = bodies.of_format(format);
        let done = if gzip { &body.gzip } else { &body.plain };
        if let Some(done) = done.get() {
            return Ok(done.clone());
        }
        // In a task of its own: a client that leaves must not make the next one begin again.
        tokio::spawn(fill(Arc::clone(&bodies), self.render, format, gzip)).await?
    }

    fn bodies(&self) -> Arc<Bodies> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, or a slow scrape could put an older sample back.
        let exposed = Arc::clone(&self.published.borrow());
        if !Arc::ptr_eq(&newest.exposed, &exposed) {
            *newest = Arc::new(Bodies::of(exposed));
        }
        Arc::clone(&newest)
    }
}

impl Bodies {
    fn of(exposed: Arc<Exposed>) -> Self {
        Self { exposed, open_metrics: Body::default(), classic: Body::default() }
    }

    fn of_format(&self, format: Format) -> &Body {
        match format {
            Format::OpenMetrics => &self.open_metrics,
            Format::Classic => &self.classic,
        }
    }
}

async fn fill(bodies: Arc<Bodies>, render: Render, format: Format, gzip: bool) -> Result<Bytes, JoinError> {
    let body = bodies.of_format(format);
    let plain = body.plain.get_or_try_init(|| {
        let exposed = Arc::clone(&bodies.exposed);
        spawn_blocking(move || Bytes::from(render(&exposed, format)))
    });
    let plain = plain.await?;
    if !gzip {
        return Ok(plain.clone());
    }
    let zipped = body.gzip.get_or_try_init(|| {
        let plain = plain.clone();
        spawn_blocking(move || compress(&plain))
    });
    zipped.await.cloned()
}

/// Level 1: label names repeat so much that it already takes nine tenths off, in a third of the default's time.
fn compress(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(plain);
    encoder.finish().unwrap_or_default().into()
}
