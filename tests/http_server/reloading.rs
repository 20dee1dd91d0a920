//! Files that change while the server runs.

use crate::certificates::*;
use crate::support::*;
use skmem_exporter::sample::Refusal;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// alice:secret
const ALICE: &str = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";

fn users(password: &str) -> String {
    format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash(password, 4).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.yml");
    std::fs::write(&path, "").unwrap();
    let server = Setup { web_config: Some(path.clone()), ..Setup::default() }.start().await;
    let statuses =
        async || (server.get("/metrics", "").await.status, server.get("/metrics", ALICE).await.status);
    assert_eq!(statuses().await, (200, 200));
    // Changes that follow each other at once, in place and by renaming, and of the same size.
    let (secret, other) = (users("secret"), users("other"));
    for turn in 0..5 {
        std::fs::write(&path, &secret).unwrap();
        assert_eq!(statuses().await, (401, 200), "{turn}");
        std::fs::write(&path, &other).unwrap();
        assert_eq!(statuses().await, (401, 401), "{turn}");
        replace(&path, &secret);
        assert_eq!(statuses().await, (401, 200), "{turn}");
    }
    // And after a while, when the file counts as settled.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(statuses().await, (401, 200));
    std::fs::write(&path, &other).unwrap();
    assert_eq!(statuses().await, (401, 401));
    assert_eq!(server.refusals.get(Refusal::BadWebConfig), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_closes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.yml");
    std::fs::write(&path, users("secret")).unwrap();
    let server = Setup { web_config: Some(path.clone()), ..Setup::default() }.start().await;
    assert_eq!(server.get("/metrics", ALICE).await.status, 200);
    for bad in [
        "basic_auth_user: {}\n",
        "}",
        "basic_auth_users: {alice: secret}\n",
        "tls_server_config: {cert: x}\n",
    ] {
        std::fs::write(&path, bad).unwrap();
        for headers in ["", ALICE] {
            let answer = server.get("/metrics", headers).await;
            assert_eq!(answer.status, 500, "{bad}");
            assert!(answer.text().contains("log"), "{}", answer.text());
        }
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(server.get("/-/healthy", ALICE).await.status, 500);
    assert!(server.refusals.get(Refusal::BadWebConfig) >= 9);
    std::fs::write(&path, users("secret")).unwrap();
    assert_eq!(server.get("/metrics", ALICE).await.status, 200);
    assert_eq!(server.get("/metrics", "").await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_not_switched() {
    let place = Place::new();
    let path = place.write("web.yml", "");
    let server = Setup { web_config: Some(path.clone()), ..Setup::default() }.start().await;
    place.tls(&[]);
    assert_eq!(server.get("/metrics", "").await.status, 500, "asked for TLS, served plain");
    std::fs::write(&path, "").unwrap();
    assert_eq!(server.get("/metrics", "").await.status, 200);

    let path = place.tls(&[]);
    let server = Setup { web_config: Some(path.clone()), ..Setup::default() }.start().await;
    let mut open = place.client().connect(server.address).await.unwrap();
    std::fs::write(&path, "").unwrap();
    assert!(!place.client().is_served(server.address).await);
    assert_eq!(server.get("/metrics", "").await.status, 400);
    open.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(read_one(&mut open).await.status, 500);
    place.tls(&[]);
    assert!(place.client().is_served(server.address).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change() {
    let place = Place::new();
    let server = Setup { web_config: Some(place.tls(&[])), ..Setup::default() }.start().await;
    let shown = async || {
        let stream = place.client().connect(server.address).await.ok()?;
        stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec())
    };
    let first = shown().await.unwrap();
    let pair = place.authority.server();
    replace(&place.path("cert.pem"), &pair.cert);
    assert_eq!(shown().await, None, "a certificate without its key");
    replace(&place.path("key.pem"), &pair.key);
    let second = shown().await.unwrap();
    assert_ne!(first, second);

    // As a mounted secret changes: by swapping the directory that a link points to.
    for version in ["one", "two"] {
        let pair = place.authority.server();
        std::fs::create_dir(place.path(version)).unwrap();
        place.write(&format!("{version}/cert.pem"), &pair.cert);
        place.write(&format!("{version}/key.pem"), &pair.key);
    }
    std::os::unix::fs::symlink("one", place.path("data")).unwrap();
    let config = "tls_server_config:\n  cert_file: data/cert.pem\n  key_file: data/key.pem\n";
    place.write("web.yml", config);
    let third = shown().await.unwrap();
    std::os::unix::fs::symlink("two", place.path("new")).unwrap();
    std::fs::rename(place.path("new"), place.path("data")).unwrap();
    let fourth = shown().await.unwrap();
    assert!(third != second && fourth != third);
}
