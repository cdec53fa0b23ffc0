"""Small changes to the code, one at a time, each of which some test must notice.

    python -m tests.mutation --seed 7 --seconds 1800     a sample, in an order that the seed decides
    python -m tests.mutation --only maildir/pop.py       all of one file
    python -m tests.mutation --list                      what would be tried

`plan.toml` says which files are changed, and which tests are asked for each; `accepted.toml` has the changes that no
test can notice, or need not, each with its reason. Why this is our own is in decision 40.
"""
