#!/usr/bin/env bash
# Builds the image where there is neither Docker nor its registry, on a bare Debian in place of the Python image, and trains
# two steps in it as a user who is not root. Takes root, debootstrap, buildah, 30 GB and a quarter of an hour.
#
#     docker/check.sh [OPTION ...]       options of `buildah bud`, as `--env PIP_CERT=FILE`
#
# MIRROR is the mirror of Debian, by default that of debootstrap.
set -euo pipefail
cd "$(dirname "$0")/.."
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
work=$(mktemp -d)
trap 'buildah rm "${base:-}" "${box:-}" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

packages=python3,python3-dev,python3-pip,python3-venv,ca-certificates
debootstrap --variant=minbase --include=$packages bookworm "$work/root" ${MIRROR:+"$MIRROR"}
cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/"
rm -f "$work"/root/usr/lib/python3*/EXTERNALLY-MANAGED # the Python image lets pip install into its own Python
ln -s /usr/bin/python3 "$work/root/usr/local/bin/python"
base=$(buildah from scratch)
buildah add --quiet "$base" "$work/root" /
buildah commit --quiet "$base" docker.io/library/python:3.11-slim-bookworm

buildah bud --pull=never --network host --build-arg PYTHON=3.11 --ignorefile docker/Dockerfile.dockerignore "$@" \
    --file docker/Dockerfile --tag rmiseg:check .

box=$(buildah from --pull=never localhost/rmiseg:check)
mkdir -p "$work/data/images" "$work/data/masks"
cat > "$work/data.py" <<'PYTHON'
from PIL import Image

for number in range(5):
    image, mask = Image.new("RGB", (64, 64), "gray"), Image.new("L", (64, 64))
    corner = 8 * number
    image.paste("red", (corner, corner, corner + 24, corner + 24))
    mask.paste(1, (corner, corner, corner + 24, corner + 24))
    image.save(f"data/images/{number}.png")
    mask.save(f"data/masks/{number}.png")
open("data/dataset.yaml", "w").write("classes: [ground, square]\n")
PYTHON
chmod -R a+rwX "$work"
buildah run --user 1234:1234 --volume "$work:/work" "$box" -- bash -ec '
    python data.py
    rmiseg --version
    rmiseg train --data.root data --train.steps 2 --out runs/check
    rmiseg evaluate runs/check
    which tensorboard torchrun
    python -c "import pydensecrf"
    ls /opt/rmiseg/recipes/*.yaml /opt/rmiseg/experiments/*.yaml > /dev/null'
echo "built and tried: localhost/rmiseg:check"
