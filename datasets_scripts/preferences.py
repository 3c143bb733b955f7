"""Publishes preference pairs: python datasets_scripts/preferences.py --sources hh uf se --repo_id user/repo."""

from preference_pairs.command import main

if __name__ == "__main__":
    main()
