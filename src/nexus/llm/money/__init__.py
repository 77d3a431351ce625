"""What a call may take, and what it has cost.

`admission` reserves before, `accounting` records after; `pricing` and `price_book` know what models cost; `quotas`
keeps to the limits of providers.
"""
