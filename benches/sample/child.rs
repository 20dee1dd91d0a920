//! A process of this program in another role: it reads orders, a line each, and answers each with a line of JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Result;

/// The process, as seen by the one that gives the orders. It ends when this is dropped, or when this process ends:
/// its orders do then.
#[derive(Debug)]
pub struct Child {
    role: String,
    process: std::process::Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Child {
    /// Starts this program with the arguments of a role.
    pub fn start(role: &[&str]) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(orders), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("a child without pipes".into());
        };
        Ok(Self { role: role.join(" "), process, orders, answers: BufReader::new(answers) })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Gives an order without waiting for the answer, so that several can work at once.
    pub fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders, "{order}").map_err(|error| self.lost(&error.to_string()))
    }

    /// Waits for the answer to an order.
    pub fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(self.lost("it has ended"));
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Gives an order and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&mut self, order: &str) -> Result<T> {
        self.order(order)?;
        self.answer()
    }

    fn lost(&self, why: &str) -> Box<dyn std::error::Error> {
        format!("no answer from `{}`: {why}", self.role).into()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The other side: answers orders until there are no more.
pub fn serve<T: Serialize>(mut answer: impl FnMut(&str) -> Result<T>) -> Result<()> {
    for order in std::io::stdin().lines() {
        println!("{}", serde_json::to_string(&answer(&order?)?)?);
    }
    Ok(())
}
