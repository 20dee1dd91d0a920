//! Bodies of what is published: rendered once each time something new is, whoever asks and however often.

use axum::body::Bytes;
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{OnceCell, watch};
use tokio::task::{JoinError, spawn_blocking};

/// How something published becomes text.
pub(super) type Render<T> = Arc<dyn Fn(&T) -> String + Send + Sync>;

/// One form of whatever is published, for the newest that has been asked for.
pub(super) struct Rendering<T> {
    published: watch::Receiver<Arc<T>>,
    render: Render<T>,
    newest: Mutex<Newest<T>>,
}

struct Newest<T> {
    /// Tells the bodies of one publication from those of the next. Weak, or a form that is asked for once an hour would
    /// keep all that was published then.
    of: Weak<T>,
    body: Arc<Body>,
}

#[derive(Default)]
struct Body {
    plain: OnceCell<Bytes>,
    gzip: OnceCell<Bytes>,
}

impl<T: Send + Sync + 'static> Rendering<T> {
    pub(super) fn new(
        published: &watch::Receiver<Arc<T>>,
        render: impl Fn(&T) -> String + Send + Sync + 'static,
    ) -> Self {
        let newest = Mutex::new(Newest { of: Weak::new(), body: Arc::default() });
        Self { published: published.clone(), render: Arc::new(render), newest }
    }

    /// The body of the newest published. The first to ask has it rendered; others that ask meanwhile wait for that one.
    pub(super) async fn body(&self, gzip: bool) -> Result<Bytes, JoinError> {
        let (published, body) = self.newest();
        let done = if gzip { &body.gzip } else { &body.plain };
        if let Some(done) = done.get() {
            return Ok(done.clone());
        }
        // In a task of its own: a client that leaves must not make the next one begin again.
        tokio::spawn(fill(published, body, Arc::clone(&self.render), gzip)).await?
    }

    fn newest(&self) -> (Arc<T>, Arc<Body>) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, or a slow request could put an older body back.
        let published = Arc::clone(&self.published.borrow());
        if !std::ptr::eq(newest.of.as_ptr(), Arc::as_ptr(&published)) {
            *newest = Newest { of: Arc::downgrade(&published), body: Arc::default() };
        }
        (published, Arc::clone(&newest.body))
    }
}

async fn fill<T: Send + Sync + 'static>(
    published: Arc<T>,
    body: Arc<Body>,
    render: Render<T>,
    gzip: bool,
) -> Result<Bytes, JoinError> {
    let plain = body.plain.get_or_try_init(|| spawn_blocking(move || Bytes::from(render(&published))));
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
