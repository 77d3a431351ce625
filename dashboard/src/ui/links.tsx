import { ActionIcon, Button, type ActionIconProps, type ButtonProps } from '@mantine/core'
import { createLink } from '@tanstack/react-router'
import type { AnchorHTMLAttributes, ReactNode, Ref } from 'react'

type Anchor<Props> = Props &
  Omit<AnchorHTMLAttributes<HTMLAnchorElement>, keyof Props> & { ref?: Ref<HTMLAnchorElement> }

/** A link of the router that looks like a button. */
export const ButtonLink = createLink(function ButtonAnchor(props: Anchor<ButtonProps>): ReactNode {
  return <Button component="a" {...props} />
})

/** A link of the router that looks like an icon button. */
export const IconLink = createLink(function IconAnchor(props: Anchor<ActionIconProps>): ReactNode {
  return <ActionIcon component="a" {...props} />
})
