"""The verifier lab: every rule on the same p and q, and the losslessness auditor."""
