//! `struct tcp_info` (`include/uapi/linux/tcp.h`), read by length: kernels only ever append to it. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The part of it that tells why a socket holds memory. `None`: this kernel does not have the field yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpInfo {
    /// `tcpi_retransmits`: retransmission timeouts in a row.
    pub retransmits: u8,
    /// `tcpi_probes`: unanswered zero-window or keepalive probes.
    pub probes: u8,
    /// `tcpi_backoff`: how often the timer has been doubled.
    pub backoff: u8,
    /// `tcpi_options`, `TCPI_OPT_*`.
    pub options: u8,
    /// `tcpi_rcv_wscale`
    pub receive_window_scale: u8,
    /// `tcpi_rcv_mss`, bytes.
    pub receive_mss: u32,
    /// `tcpi_unacked`: segments sent and not acknowledged.
    pub unacked: u32,
    /// `tcpi_last_data_recv`, milliseconds: arrivals, not reads.
    pub last_data_received_ms: u32,
    /// `tcpi_last_ack_recv`, milliseconds.
    pub last_ack_received_ms: u32,
    /// `tcpi_rcv_ssthresh`, bytes.
    pub receive_ssthresh: u32,
    /// `tcpi_rcv_rtt`, microseconds; 0 for no estimate.
    pub receive_rtt_us: u32,
    /// `tcpi_rcv_space`: what the application took in one round trip, bytes. Not free space.
    pub receive_space: u32,
    /// `tcpi_bytes_acked`
    pub bytes_acked: Option<u64>,
    /// `tcpi_bytes_received`
    pub bytes_received: Option<u64>,
    /// `tcpi_notsent_bytes`
    pub not_sent: Option<u32>,
    /// `tcpi_data_segs_in`
    pub data_segments_in: Option<u32>,
    /// `tcpi_rcv_ooopack`: segments received out of order (Linux 5.4).
    pub out_of_order_segments: Option<u32>,
    /// `tcpi_snd_wnd`: the peer's window, bytes (Linux 5.4).
    pub send_window: Option<u32>,
    /// `tcpi_rcv_wnd`: our window, bytes (Linux 6.2).
    pub receive_window: Option<u32>,
}

/// `TCPI_OPT_WSCALE`
const WINDOW_SCALING: u8 = 4;
/// Up to and with `tcpi_total_retrans`: what every kernel since 2.6 sends.
const LEN_MIN: usize = 104;

impl TcpInfo {
    /// Decodes an `INET_DIAG_INFO` attribute.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < LEN_MIN {
            return Err(format!("tcp_info of {} bytes, expected at least {LEN_MIN}", bytes.len()));
        }
        let word = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let long = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
        let fixed = |at: usize| word(at).unwrap_or_default();
        Ok(Self {
            retransmits: bytes[2],
            probes: bytes[3],
            backoff: bytes[4],
            options: bytes[5],
            // Two bit fields of four bits: snd_wscale first, which is the low half on little-endian machines.
            receive_window_scale: if cfg!(target_endian = "little") { bytes[6] >> 4 } else { bytes[6] & 0xf },
            receive_mss: fixed(20),
            unacked: fixed(24),
            last_data_received_ms: fixed(52),
            last_ack_received_ms: fixed(56),
            receive_ssthresh: fixed(64),
            receive_rtt_us: fixed(92),
            receive_space: fixed(96),
            bytes_acked: long(120),
            bytes_received: long(128),
            not_sent: word(144),
            data_segments_in: word(152),
            out_of_order_segments: word(224),
            send_window: word(228),
            receive_window: word(232),
        })
    }

    /// Whether window scaling was agreed on; without it no window exceeds 64 KiB.
    pub fn has_window_scaling(&self) -> bool {
        self.options & WINDOW_SCALING != 0
    }

    /// All of it in one line, in the kernel's words: sizes in bytes, times in milliseconds. What this kernel does not tell is
    /// left out.
    pub fn listing(&self) -> String {
        let scale = if self.has_window_scaling() {
            format!("wscale:{}", self.receive_window_scale)
        } else {
            "no wscale".to_owned()
        };
        let rtt = match self.receive_rtt_us {
            0 => "rcv_rtt:none".to_owned(),
            rtt => format!("rcv_rtt:{:.1}ms", f64::from(rtt) / 1e3),
        };
        let known = |name: &str, value: Option<u32>| value.map(|value| format!("{name}:{value}"));
        [
            known("rcv_wnd", self.receive_window),
            known("snd_wnd", self.send_window),
            Some(scale),
            Some(rtt),
            known("rcv_space", Some(self.receive_space)),
            known("rcv_ssthresh", Some(self.receive_ssthresh)),
            known("unacked", Some(self.unacked)),
            known("notsent", self.not_sent),
            known("retransmits", Some(self.retransmits.into())),
            known("probes", Some(self.probes.into())),
            known("rcv_ooopack", self.out_of_order_segments),
            Some(format!("last_data_recv:{}ms", self.last_data_received_ms)),
            Some(format!("last_ack_recv:{}ms", self.last_ack_received_ms)),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
    }

    /// Payload that the application has taken out of the queue: `bytes_received` less what is unread. A FIN counts in
    /// both and cancels out.
    pub fn consumed(&self, rqueue: u32) -> Option<u64> {
        Some(self.bytes_received?.saturating_sub(u64::from(rqueue)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; 280];
        bytes[2..8].copy_from_slice(&[3, 1, 2, 7, 0xa7, 0]);
        for (at, value) in
            [(20, 536u32), (24, 9), (52, 1500), (56, 200), (92, 40), (144, 77), (224, 5), (232, 0)]
        {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes[120..128].copy_from_slice(&(5u64 << 33).to_ne_bytes());
        bytes[128..136].copy_from_slice(&1001u64.to_ne_bytes());
        bytes[228..232].copy_from_slice(&65_535u32.to_ne_bytes());
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn fields_stand_where_the_kernel_puts_them() {
        let read = TcpInfo::parse(&info(280)).unwrap();
        assert_eq!((read.retransmits, read.probes, read.backoff), (3, 1, 2));
        assert!(read.has_window_scaling());
        assert_eq!(read.receive_window_scale, 10);
        assert_eq!((read.receive_mss, read.unacked), (536, 9));
        assert_eq!(read.bytes_acked, Some(5 << 33));
        assert_eq!(read.consumed(1001), Some(0));
        assert_eq!(read.consumed(1), Some(1000));
        assert_eq!((read.send_window, read.receive_window), (Some(65_535), Some(0)));
    }

    #[test]
    fn the_listing_leaves_out_what_is_not_told() {
        let all = TcpInfo::parse(&info(280)).unwrap().listing();
        assert_eq!(
            all,
            "rcv_wnd:0 snd_wnd:65535 wscale:10 rcv_rtt:0.0ms rcv_space:0 rcv_ssthresh:0 unacked:9 notsent:77 \
             retransmits:3 probes:1 rcv_ooopack:5 last_data_recv:1500ms last_ack_recv:200ms"
        );
        let old = TcpInfo::parse(&info(104)).unwrap().listing();
        assert!(old.starts_with("wscale:10 ") && !old.contains("notsent"), "{old}");
    }

    #[test]
    fn older_kernels_send_less() {
        let before_6_2 = TcpInfo::parse(&info(232)).unwrap();
        assert_eq!((before_6_2.send_window, before_6_2.receive_window), (Some(65_535), None));
        let before_4_1 = TcpInfo::parse(&info(104)).unwrap();
        assert_eq!((before_4_1.bytes_received, before_4_1.consumed(0)), (None, None));
        assert!(TcpInfo::parse(&info(103)).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = TcpInfo::parse(&bytes);
        }
    }
}
