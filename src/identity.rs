//! Who a process is, read off its cgroup path: systemd unit, container, pod. Pure.

/// What a cgroup path says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The system manager's unit: the first component that ends like one, slices aside. For a user's own services
    /// that is `user@UID.service`, as `systemctl status PID` says too.
    pub systemd_unit: String,
    /// 64 hex digits.
    pub container_id: String,
    /// Kubernetes pod uid with dashes, as kube_pod_info has it.
    pub pod_uid: String,
}

/// Unit types a process can live in, slices aside.
const UNIT_SUFFIXES: [&str; 6] = [".service", ".scope", ".socket", ".mount", ".swap", ".automount"];
/// Docker, containerd, CRI-O and podman name containers by this many hex digits.
const CONTAINER_ID_LEN: usize = 64;
/// A pod uid: 32 hex digits in five groups.
const POD_UID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

impl Identity {
    /// Reads a cgroup path, of cgroup v1 or v2, systemd or cgroupfs driver.
    pub fn of(cgroup: &str) -> Self {
        let components = || cgroup.split('/').filter(|component| !component.is_empty());
        Self {
            systemd_unit: components()
                .find(|component| UNIT_SUFFIXES.iter().any(|suffix| component.ends_with(suffix)))
                .unwrap_or_default()
                .to_owned(),
            // The innermost: a container inside a container is the one a process is in.
            container_id: components().rev().find_map(container_id).unwrap_or_default().to_owned(),
            pod_uid: components().find_map(pod_uid).unwrap_or_default(),
        }
    }
}

/// `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`, or plain `ID`.
fn container_id(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let (runtime, id) = name.rsplit_once('-').unwrap_or(("", name));
    // conmon watches a container from outside, in a scope named after it.
    if runtime.ends_with("conmon") {
        return None;
    }
    (id.len() == CONTAINER_ID_LEN && is_hex(id)).then_some(id)
}

/// `podUID` (cgroupfs driver), `kubepods-burstable-podUID.slice` with underscores (systemd driver).
fn pod_uid(component: &str) -> Option<String> {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let uid = match name.rsplit_once("-pod") {
        Some((_, uid)) => uid.replace('_', "-"),
        None => name.strip_prefix("pod")?.to_owned(),
    };
    let groups: Vec<&str> = uid.split('-').collect();
    let is_dashed = groups.iter().map(|group| group.len()).eq(POD_UID_GROUPS);
    // A static pod's uid is the hash of its manifest: 32 hex digits without dashes.
    let is_hash = groups.len() == 1 && uid.len() == 32;
    ((is_dashed || is_hash) && groups.iter().all(|group| is_hex(group))).then_some(uid)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e8c0a1b2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b";
    const UID: &str = "0b9f4a1e-7c3d-4e2f-8a1b-2c3d4e5f6a7b";

    fn check(path: &str, systemd_unit: &str, container_id: &str, pod_uid: &str) {
        let path = path.replace("$C", ID).replace("$U", &UID.replace('-', "_")).replace("$P", UID);
        let want = Identity {
            systemd_unit: systemd_unit.replace("$C", ID),
            container_id: container_id.to_owned(),
            pod_uid: pod_uid.to_owned(),
        };
        assert_eq!(Identity::of(&path), want, "{path}");
    }

    #[test]
    fn cgroup_paths() {
        check("/", "", "", "");
        check("", "", "", "");
        check("/system.slice/nginx.service", "nginx.service", "", "");
        check("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", "", "");
        check(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
            "user@1000.service",
            "",
            "",
        );
        check("/user.slice/user-0.slice/session-3.scope", "session-3.scope", "", "");
        check("/init.scope", "init.scope", "", "");
        check("/system.slice/docker-$C.scope", "docker-$C.scope", ID, "");
        check("/docker/$C", "", ID, "");
        check("/docker/$C/init.scope", "init.scope", ID, "");
        check("/machine.slice/libpod-$C.scope/container", "libpod-$C.scope", ID, "");
        check("/machine.slice/libpod-conmon-$C.scope", "libpod-conmon-$C.scope", "", "");
        check("/kubepods/burstable/pod$P/$C", "", ID, UID);
        check("/kubepods/pod$P/$C", "", ID, UID);
        check(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod$U.slice/cri-containerd-$C.scope",
            "cri-containerd-$C.scope",
            ID,
            UID,
        );
        check("/kubepods.slice/kubepods-pod$U.slice/crio-$C.scope", "crio-$C.scope", ID, UID);
        check("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod$U.slice/$C", "", ID, UID);
        let hash = "0123456789abcdef0123456789abcdef";
        check(&format!("/kubepods/besteffort/pod{hash}/$C"), "", ID, hash);
    }

    #[test]
    fn lookalikes_are_none() {
        check("/podium/pod-of-whales.slice", "", "", "");
        check("/x/deadbeef", "", "", "");
        check(&format!("/x/{}", ID.to_uppercase()), "", "", "");
        check(&format!("/x/{ID}0"), "", "", "");
        check("/x/my.services", "", "", "");
    }
}
