"""Stage `certify`: certify every method of the study before anything is trained."""

import time
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_record, write_json
from peft_study.stage_configs import CertifyConfig
from peft_study.training.environment import kept_variables


def main() -> None:
    config, clock = read_record(Path("configs/certify.json"), CertifyConfig), time.perf_counter()
    from peft_study.certify.certificate import certificates

    with kept_variables():
        found = certificates(config)
    write_json(Path("metrics/certificates.json"), found)
    names = ", ".join(certificate.method for certificate in found.methods) or "no method"
    print(f"certify: {names}: certified, {time.perf_counter() - clock:.0f} s")
    print("certify: wrote metrics/certificates.json")


if __name__ == "__main__":
    run_command(main)
