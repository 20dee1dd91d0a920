"""The packages that `make packages` has built before it runs these tests."""

from box import ROOT, run

# The same with a version nobody has, to upgrade to.
NEWER_VERSION = "99.0.0"


def built(directory, ending):
    """The one package of a kind."""
    found = list((ROOT / directory).glob(f"*.{ending}"))
    assert len(found) == 1, f"{directory} holds {len(found)} .{ending}: `make packages` builds them and runs these tests"
    return found[0]


DEB, RPM = (built("target/dist", ending) for ending in ("deb", "rpm"))
NEWER_DEB, NEWER_RPM = (built("target/packages", ending) for ending in ("deb", "rpm"))


def install(box, deb):
    """Installs or upgrades, as dpkg does it without asking anybody."""
    inside = f"/tmp/{deb.name}"
    box.put(deb, inside)
    return box.sh(f"DEBIAN_FRONTEND=noninteractive dpkg --install {inside}; rm {inside}")


def deb_field(deb, name):
    """A field of the control file."""
    return run("dpkg-deb", "--field", deb, name).stdout.strip()
