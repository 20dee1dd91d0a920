//! `basic_auth_users` of the web configuration file.
//!
//! A bcrypt costs tens of milliseconds of a processor by design, so one runs at a time, on a thread of its
//! own: not on the workers that serve requests, and not in a pool the program would wait for when it ends.
//! Its result is remembered, so that a scraper pays once.

use super::limits::MAX_WAITING_LOGINS;
use ring::{hmac, rand::SystemRandom};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, oneshot};

/// Results of each kind to remember: every scraper's own, and the wrong guesses of a misconfigured one. Right
/// and wrong ones are counted apart, so that guesses do not push out those who may come in.
const REMEMBERED: usize = 100;

/// The users and their bcrypt hashes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Users {
    hashes: HashMap<String, String>,
    /// The highest cost of all hashes.
    cost: u32,
}

impl Users {
    /// Adds a user; the error is what is wrong with the hash, which it does not repeat.
    pub(super) fn add(&mut self, name: &str, hash: &str) -> Result<(), String> {
        let make = "make one with: htpasswd -nBC 10 \"\" | tr -d ':\\n'";
        let parts: bcrypt::HashParts = hash.parse().map_err(|_| format!("this is no bcrypt hash; {make}"))?;
        // Parsing checks the shape, not the alphabet or the cost.
        let salt_and_hash = hash.rsplit('$').next().unwrap_or_default();
        let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
        if !salt_and_hash.bytes().all(in_alphabet) {
            return Err(format!("this is no bcrypt hash; {make}"));
        }
        if !(4..=31).contains(&parts.get_cost()) {
            return Err(format!("a bcrypt cost of {} does not exist; {make}", parts.get_cost()));
        }
        self.cost = self.cost.max(parts.get_cost());
        self.hashes.insert(name.to_owned(), hash.to_owned());
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The hash of a user. For an unknown one, a hash that no password has and that costs as much to find out,
    /// so that the time of an answer does not tell which users exist.
    fn hash(&self, name: &[u8]) -> (String, bool) {
        match std::str::from_utf8(name).ok().and_then(|name| self.hashes.get(name)) {
            Some(hash) => (hash.clone(), true),
            None => (format!("$2b${:02}${}", self.cost, ".".repeat(53)), false),
        }
    }
}

/// What came of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    /// User and password are right.
    Right,
    /// They are not.
    Wrong,
    /// Too many wait already.
    Busy,
}

/// Checks logins, for all connections.
pub(super) struct Logins {
    /// Passwords are remembered as digests under a key that nobody knows and that ends with the process.
    key: hmac::Key,
    remembered: Arc<Mutex<Remembered>>,
    turn: Arc<Semaphore>,
    waiting: Semaphore,
}

#[derive(Default)]
struct Remembered {
    right: Recent,
    wrong: Recent,
}

#[derive(Default)]
struct Recent(VecDeque<Digest>);

type Digest = [u8; 32];

impl Recent {
    fn add(&mut self, digest: Digest) {
        if !self.0.contains(&digest) {
            self.0.truncate(REMEMBERED - 1);
            self.0.push_front(digest);
        }
    }
}

impl Remembered {
    fn get(&self, digest: &Digest) -> Option<Login> {
        if self.right.0.contains(digest) {
            return Some(Login::Right);
        }
        self.wrong.0.contains(digest).then_some(Login::Wrong)
    }

    fn add(&mut self, digest: Digest, login: Login) {
        match login {
            Login::Right => self.right.add(digest),
            Login::Wrong => self.wrong.add(digest),
            Login::Busy => {}
        }
    }
}

impl Logins {
    /// Without a source of random numbers there is no key, and no login.
    pub(super) fn new() -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            remembered: Arc::default(),
            turn: Arc::new(Semaphore::new(1)),
            waiting: Semaphore::new(MAX_WAITING_LOGINS),
        })
    }

    /// Whether `user` is one of `users` and `password` is the password.
    pub(super) async fn check(&self, users: &Users, user: &[u8], password: &[u8]) -> Login {
        let (hash, known) = users.hash(user);
        let digest = self.digest([user, hash.as_bytes(), password]);
        if let Some(login) = self.remembered(&digest) {
            return login;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else { return Login::Busy };
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else { return Login::Busy };
        // The one before may have asked the same.
        if let Some(login) = self.remembered(&digest) {
            return login;
        }
        let (tell, told) = oneshot::channel();
        let (remembered, password) = (Arc::clone(&self.remembered), password.to_vec());
        let work = move || {
            let right = bcrypt::verify(password, &hash).unwrap_or(false) && known;
            let login = if right { Login::Right } else { Login::Wrong };
            remembered.lock().unwrap_or_else(PoisonError::into_inner).add(digest, login);
            drop(turn);
            // The client may have left meanwhile.
            let _ = tell.send(login);
        };
        match std::thread::Builder::new().name("bcrypt".to_owned()).spawn(work) {
            Ok(_) => told.await.unwrap_or(Login::Busy),
            Err(error) => {
                tracing::error!(%error, "no thread to check a password with; raise TasksMax or the like");
                Login::Busy
            }
        }
    }

    fn remembered(&self, digest: &Digest) -> Option<Login> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(digest)
    }

    fn digest(&self, parts: [&[u8]; 3]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // With its length, or "ab" + "c" would be "a" + "bc".
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn users(cost: u32) -> Users {
        let mut users = Users::default();
        users.add("alice", &bcrypt::hash("right", cost).unwrap()).unwrap();
        users
    }

    #[tokio::test]
    async fn right_and_wrong() {
        let (logins, users) = (Logins::new().unwrap(), users(4));
        for _ in 0..2 {
            assert_eq!(logins.check(&users, b"alice", b"right").await, Login::Right);
            assert_eq!(logins.check(&users, b"alice", b"wrong").await, Login::Wrong);
            assert_eq!(logins.check(&users, b"alice", b"").await, Login::Wrong);
            assert_eq!(logins.check(&users, b"bob", b"right").await, Login::Wrong);
            assert_eq!(logins.check(&users, b"\xff", b"right").await, Login::Wrong);
        }
        // What was right for one hash is not for another.
        let mut others = Users::default();
        others.add("alice", &bcrypt::hash("other", 4).unwrap()).unwrap();
        assert_eq!(logins.check(&others, b"alice", b"right").await, Login::Wrong);
        // Wrong guesses are forgotten in time, the right password is not.
        for guess in 0..2 * REMEMBERED {
            logins.check(&users, b"alice", guess.to_string().as_bytes()).await;
        }
        let digest = |password| {
            let (hash, _) = users.hash(b"alice");
            logins.digest([b"alice", hash.as_bytes(), password])
        };
        assert_eq!(logins.remembered(&digest(b"right")), Some(Login::Right));
        assert_eq!(logins.remembered(&digest(b"wrong")), None);
        assert_eq!(logins.remembered.lock().unwrap().wrong.0.len(), REMEMBERED);
    }

    #[tokio::test]
    async fn an_unknown_user_costs_as_much() {
        let (logins, users) = (Logins::new().unwrap(), users(10));
        let time = async |user: &[u8]| {
            let begin = Instant::now();
            logins.check(&users, user, b"wrong").await;
            begin.elapsed()
        };
        let (known, unknown) = (time(b"alice").await, time(b"bob").await);
        assert!(unknown * 4 > known && known * 4 > unknown, "{known:?} {unknown:?}");
        assert!(time(b"alice").await * 4 < known, "a result is remembered");
    }

    #[tokio::test]
    async fn no_more_than_so_many_wait() {
        let (logins, users) = (Arc::new(Logins::new().unwrap()), Arc::new(users(4)));
        let turn = Arc::clone(&logins.turn).acquire_owned().await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for guess in 0..=MAX_WAITING_LOGINS {
            let (logins, users) = (Arc::clone(&logins), Arc::clone(&users));
            tasks.spawn(async move { logins.check(&users, b"alice", guess.to_string().as_bytes()).await });
        }
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), Login::Busy);
        drop(turn);
        assert!(tasks.join_all().await.iter().all(|&login| login == Login::Wrong));
    }

    #[test]
    fn hashes() {
        let good = bcrypt::hash("x", 4).unwrap();
        let mut users = Users::default();
        assert_eq!(users.add("a", &good), Ok(()));
        assert_eq!(users.add("a", &good.replace("$2b$", "$2y$")), Ok(()));
        let long = format!("{good}x");
        for bad in ["", "plain", "$2b$04$short", &long, &good.replace("$04$", "$03$"), "$1$abc$def"] {
            let problem = users.add("b", bad).unwrap_err();
            assert!(problem.contains("htpasswd"), "{problem}");
            assert!(bad.is_empty() || !problem.contains(bad), "{problem}");
        }
        assert!(bcrypt::verify("x", &Users { cost: 4, ..users }.hash(b"nobody").0).is_ok_and(|right| !right));
    }
}
